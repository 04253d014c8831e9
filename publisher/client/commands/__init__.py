"""Commands that call the service: a module per noun, named in publisher/client/main.py."""
