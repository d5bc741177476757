"""Photos of one's own: which model edits them, their faces, and the edits with their certificates."""
