"""SQL: tables, migrations, and the group-commit writer."""
