"""Energy and heat of satellites: what the Sun gives, the battery holds, the computer takes and the radiator sheds.

sky (sunlight over time) -> panel -> battery; radiator; limits (the rule for the computer); fleet (all of them for all
satellites at once); balance (a day of it without a network).
"""
