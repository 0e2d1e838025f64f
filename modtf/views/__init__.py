"""What people look at: figures from plain records, the explorer and the page that shows it."""
