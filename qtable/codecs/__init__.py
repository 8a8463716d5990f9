"""How a photo becomes a file and a file a photo again: coders, values that remake their files."""
