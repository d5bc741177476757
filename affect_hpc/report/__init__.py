"""Results for people: tables, plots, contact sheets and a page."""
