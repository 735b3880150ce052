"""The server alive-tools: finding tools, reading logs, asking the user."""
