"""The server alive-email: the mail that started an automation, and the reply to it."""
