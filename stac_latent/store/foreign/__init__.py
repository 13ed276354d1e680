"""Arrays and tables that others wrote."""
