"""The default script: a small coding task that either agent does in any workspace, again with every turn."""

from dataclasses import replace

from alive_kit.testing.scripted_model.script import CallTool, Reply, RunCommand, Script, TokenUsage, WriteFile

_GREETING = '''"""Greets people."""

import sys


def greet(name: str) -> str:
    """Return a greeting for somebody."""
    return f"Hello, {name}!"


if __name__ == "__main__":
    print(greet(sys.argv[1] if len(sys.argv) > 1 else "world"))
'''

DEMO = Script(
    loop=True,
    replies=[
        Reply(
            reasoning="A small program is wanted. I will write it with a function that can be tested, then run it.",
            text="I'll write `greeting.py` and try it out.",
            actions=[WriteFile(path="greeting.py", content=_GREETING)],
            usage=TokenUsage(input=1200, cached=800, output=160, reasoning=24),
            chunk=6,
            gap=0.01,
        ),
        Reply(
            actions=[RunCommand(command="python3 greeting.py Alive")],
            usage=TokenUsage(input=1420, cached=1200, output=40),
        ),
        Reply(
            text='Done: `greeting.py` greets whoever is named on the command line. It printed "Hello, Alive!".',
            usage=TokenUsage(input=1500, cached=1400, output=36),
            chunk=6,
            gap=0.01,
        ),
    ],
)

_SERVE = Reply(
    text="Now the website is served as it is.",
    actions=[CallTool(server="alive-workspace", tool="switch_serve_mode", arguments={"mode": "dev"})],
    usage=TokenUsage(input=1460, cached=1400, output=30),
)

PRODUCT_DEMO = replace(DEMO, replies=[*DEMO.replies[:2], _SERVE, DEMO.replies[2]])
"""The same where the agent has Alive's tools, and a product behind them."""
