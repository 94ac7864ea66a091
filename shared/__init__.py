"""What two services need today. Imports nothing from `services`; each package says what it holds and what it does not."""
