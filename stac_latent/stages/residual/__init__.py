"""What a decoded tile lacks so that each pixel keeps an error bound."""
