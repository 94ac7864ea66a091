"""What two services need today; imports nothing from `services`. Each package says what it holds and what not."""
