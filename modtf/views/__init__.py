"""What people look at: figures from plain records, the slider and the page that shows it."""
