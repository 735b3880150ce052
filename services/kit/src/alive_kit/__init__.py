"""What every Alive service needs: serving a provider, keeping turns, starting vendor CLIs."""
