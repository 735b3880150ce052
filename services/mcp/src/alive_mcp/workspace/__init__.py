"""The server alive-workspace: what changes the workspace and the website that runs from it."""
