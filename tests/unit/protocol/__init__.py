"""Messages, and what is answered to them."""
