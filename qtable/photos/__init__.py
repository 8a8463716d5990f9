"""Photos and what is known of them: sets, readers, opening, the embedded default."""
