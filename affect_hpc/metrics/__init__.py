"""What is measured of images: mergeable states, paired distances, affect."""
