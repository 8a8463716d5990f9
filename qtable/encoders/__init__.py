"""Tables for other people's encoders and back, and what a file tells of its encoder."""
