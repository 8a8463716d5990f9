"""Tables for other people's encoders, and back."""
