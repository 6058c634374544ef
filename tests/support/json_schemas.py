"""Random JSON schemas of answers that end, and of every keyword that the endpoint enforces."""

import json
import random

from jsonschema import Draft202012Validator, ValidationError

WORDS = ("fox", "dog", "colour", "größe", "a b", "ends", "東京", "")


class Schemas:
    def __init__(self, seed):
        self._random = random.Random(seed)

    def object(self, depth=2):
        names = self._random.sample(WORDS[:-1], self._random.randint(1, 4))
        return {
            "type": "object",
            "title": "Found",
            "properties": {name: self.value(depth - 1) for name in names},
            "required": [name for name in names if self._random.random() < 0.7],
            "additionalProperties": False,
        }

    def value(self, depth):
        kinds = [self.text, self.pattern, self.format, self.integer, self.choice, self.constant, self.truth]
        nested = [self.object, self.array, self.either, self.named]
        kind = self._random.choice(kinds + (nested if depth else []))
        return kind(depth) if kind in nested else kind()

    def text(self):
        least = self._random.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + self._random.randint(0, 8)}

    def pattern(self):
        return {"type": "string", "pattern": self._random.choice(["^[a-z]{1,5}$", "^(fox|dog)-[0-9]{2}$"])}

    def format(self):
        return {
            "type": "string",
            "format": self._random.choice(["time", "uuid", "ipv4"]),
        }

    def integer(self):
        low = self._random.randint(-50, 50)
        bounds = {"minimum": low, "maximum": low + self._random.randint(0, 100)}
        if self._random.random() < 0.3:
            bounds = {"exclusiveMinimum": low, "exclusiveMaximum": low + 2 + self._random.randint(0, 100)}
        return {"type": "integer", "description": "how many", **bounds}

    def choice(self):
        return {"enum": self._random.sample([*WORDS, 1, 2.5, None, True, [1], {"a": "b"}], 3)}

    def constant(self):
        return {"const": self._random.choice([*WORDS, -7, False, None])}

    def truth(self):
        return {"type": self._random.choice(["boolean", "null", ["boolean", "null"]])}

    def array(self, depth):
        least = self._random.randint(0, 2)
        most = least + self._random.randint(0, 2)
        return {"type": "array", "items": self.value(depth - 1), "minItems": least, "maxItems": most}

    def either(self, depth):
        return {"anyOf": [self.value(depth - 1), self.integer()]}

    def named(self, depth):
        return {"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}}, "required": ["at"]} | {
            "additionalProperties": False
        }


def random_schemas(count, seed=0):
    """Objects; each defines what `named` refers to."""
    made = Schemas(seed)
    return [made.object() | {"$defs": {"place": made.text()}} for _ in range(count)]


def problem_of_answer(schema, text):
    """Why `text` is not an answer that follows the schema; None if it is one."""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        validator.validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        return str(error)
    return None
