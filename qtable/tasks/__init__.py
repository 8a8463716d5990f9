"""What looks at photos and how it is scored: tasks, models, preprocessing."""
