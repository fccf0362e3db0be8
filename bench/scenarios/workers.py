"""Workers: messages/s of 1, 2 and 4 worker processes against a sink that answers after 20 ms; at best linear."""

from bench.arithmetic import Row, compare, ratio_at_least
from bench.delivering import Standing
from bench.product import Agents
from bench.run import Run
from bench.sinks.client import OwnSink

DELAY_MS = 20
# Connections of each worker: so few that waiting for the sink is the limit, and not the cores. A message waits once
# for it since the dot travels with the next one (decision 18); when it waited twice, there were six.
LANES = 4
COUNTS = (1, 2, 4)
BOUNDS = {2: None, 4: ratio_at_least(0.8)}


def measure(run: Run) -> list[Row]:
    """Workers have both cores; sink, Redis and what refills the queue are on the second."""
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "smtp", str(DELAY_MS))
        agents = Agents(("orders",), port=sink.port, connections=1000)
        standing = Standing(children, run, agents, level=5_000, lanes=LANES)
        standing.begin_filling()
        standing.filled()
        rates = run.take_turns(
            **{
                f"{count}": lambda count=count: standing.rate(
                    [run.cores.both] * count, warmup=2.0, seconds=4.0
                )
                for count in COUNTS
            }
        )
    run.series["workers"] = rates
    rows = []
    for count, must in BOUNDS.items():
        row = Row(scenario=f"workers, {count}", unit="messages/s", against=f"{count} × one worker")
        row.stretch = "0.95" if must else ""
        linear = [count * rate for rate in rates["1"]]
        rows.append(compare(row, list(zip(rates[f"{count}"], linear, strict=True)), must))
    rows[-1].note = f"{LANES} connections a worker; every answer takes {DELAY_MS} ms"
    return rows
