"""What a chat is: rows of a file or of the hub, their shapes, and the chat template."""
