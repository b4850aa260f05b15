"""Results for people: tables from recorded runs."""
