"""Pages for the people of the panels: review, disputes, administration, the dashboard."""
