"""The simulation of a fleet against deployments on Ray Serve of this machine.

    python bench/ray-fleet.py together MODEL       how fast each of two goes that compute at the same time, of one alone
    python bench/ray-fleet.py calibrate MODEL TOGETHER     how long steps take; what stands before the replicas takes, from
                                                   a deployment of one
    python bench/ray-fleet.py check MODEL CALIBRATION N    two traces through N replicas, measured and simulated
    python bench/ray-fleet.py again MODEL CALIBRATION N    the same traces, simulated again beside what was measured

Each prints one JSON object for the next. Clients run here, too, and their time counts to what stands before the replicas.
"""
import asyncio, json, os, random, sys, time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
CORES = os.cpu_count()
TICK = os.sysconf("SC_CLK_TCK")


def cpu():
    """Seconds of processor time that Ray's processes and this one have used."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            line = open(f"/proc/{pid}/cmdline").read()
        except OSError:
            continue
        if "ray::" in line or "site-packages/ray" in line or int(pid) == os.getpid():
            total += int(words[11]) + int(words[12])
    return total / TICK


def all_cpu():
    """The same of everything that this machine runs, and what it is not given."""
    words = open("/proc/stat").readline().split()[1:]
    return sum(int(words[at]) for at in (0, 1, 2, 5, 6, 7)) / TICK


async def ask(session, at, start, prompt, tokens, told):
    await asyncio.sleep(max(0, start + at - time.perf_counter()))
    begin, first = time.perf_counter(), None
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    async with session.post("http://127.0.0.1:18438/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        whole = b""
        async for piece in answer.content.iter_any():
            first = first or time.perf_counter()
            whole += piece
    end = time.perf_counter()
    known = json.loads(whole.split(b"data: ")[-2])["timings"]["cache_n"]
    told.append((at, begin - start - at, first - begin, end - begin, known))


async def drive(trace, replicas):
    import aiohttp

    told = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600), connector=aiohttp.TCPConnector(limit=0)) as session:
        # Connections and code are warm, and the memory for keys and values is full, as a service's is that has run for a while.
        await asyncio.gather(*(ask(session, 0, time.perf_counter(), [20 + n] * 20, 4, []) for n in range(KEPT // 128 * replicas)))
        await asyncio.sleep(1)
        used, every, start = cpu(), all_cpu(), time.perf_counter()
        await asyncio.gather(*(ask(session, at, start, prompt, tokens, told) for at, prompt, tokens in trace))
        used, span = cpu() - used, time.perf_counter() - start
        return told, used, span, max(0.0, all_cpu() - every - used) / span


def deploy(model, replicas):
    import ray
    from ray import serve

    from tern.ray import TernServeConfig, build_openai_app

    ray.init(num_cpus=replicas + 2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    serve.start(http_options={"port": 18438})
    # 400 characters of ids: less than what the groups share.
    config = TernServeConfig(model, name="m", replicas=replicas, slack=SLACK, prefix=400, queue=10_000, options={"n_ctx": 1024, "kv_memory": KV_MEMORY})
    serve.run(build_openai_app([config]), name="tern", route_prefix="/")


SLACK = 4
# Bytes of keys and values for each replica, and how many tokens' that are: bitnet-large's shape in f16 takes 147,456 for each.
KV_MEMORY = 1536 << 20
KEPT = KV_MEMORY // 147_456


def requests(per_second, seconds, seed):
    """The same as requests of the simulation and as bodies."""
    from tern.fleet import traffic

    simulated = traffic({"model": "m", "per_second": per_second, "prompt": [40, 20], "answer": [48, 24],
                         "shared": {"groups": 12, "tokens": 160, "skew": 0.8}}, seconds, seed)
    dice, groups, trace = random.Random(seed), {}, []
    for one in simulated:
        begins = groups.setdefault(one.group, [dice.randrange(16, 4000) for _ in range(one.shared)])
        trace.append((one.at, begins + [dice.randrange(16, 4000) for _ in range(one.prompt - one.shared)], one.answer))
    return simulated, trace


def seen_in(replicas, name):
    """Where what a check saw lies, for `again`."""
    os.makedirs("target/fleet", exist_ok=True)
    return f"target/fleet/seen-{replicas}-{name.replace(' ', '-')}.json"


def main():
    from tern import fleet

    what, model = sys.argv[1:3]
    if what == "measure":
        return print(json.dumps(fleet.measure(model, 1, n_ctx=1024).json()))
    if what == "together":
        import subprocess

        def many(count):
            runs = [subprocess.Popen([sys.executable, __file__, "measure", model], stdout=subprocess.PIPE) for _ in range(count)]
            return [json.loads(run.communicate()[0]) for run in runs]

        (alone,) = many(1)
        ratios = sorted(alone[rows] / both[rows] for both in many(CORES) for rows in alone)
        return print(json.dumps({"together": ratios[len(ratios) // 2], "ratios": ratios}))
    if what == "calibrate":
        rates, told = fleet.measure(model, 1, n_ctx=1024), {"together": float(sys.argv[3])}
    else:
        told = json.loads(sys.argv[3])
        rates = fleet.Rates.of(told["rates"])
    kinds = {"m": fleet.Kind("m", rates, kept=KEPT)}

    def simulated(trace, replicas, costs, cores=CORES):
        return fleet.simulate(kinds, [(cores, ["m"] * replicas)], trace, costs, SLACK, together=told["together"])

    if what == "calibrate":
        deploy(model, 1)
        used = cpu()
        time.sleep(4)
        idle = (cpu() - used) / 4
        points = []
        for count, tokens in ((100, 2), (30, 100)):
            dice = random.Random(count)
            trace = [(n * (0.1 if tokens == 2 else 0.25), [dice.randrange(16, 4000) for _ in range(16)], tokens) for n in range(count)]
            plan = [fleet.Request(at, "m", len(prompt), tokens) for at, prompt, tokens in trace]
            _, used, span, _ = asyncio.run(drive(trace, 1))
            (machine,) = simulated(plan, 1, fleet.Costs())
            points.append((count, count * tokens, used - idle * span - machine.servers[0].busy))
        (a, b, x), (c, d, y) = points
        token = (c * x - a * y) / (c * b - a * d)
        return print(json.dumps({**told, "rates": rates.json(), "request": (x - b * token) / a, "token": max(token, 0), "idle": idle,
                                 "points": points}))

    replicas = int(sys.argv[4])
    costs, cores = fleet.Costs(told["request"], told["token"]), CORES - told["idle"]
    if what == "check":
        deploy(model, replicas)
    for name, per_second, seconds, most in (("spread", float(os.environ.get("RATE", "1.5")), 30, 1000), ("at once", 1e6, 1e-3, 48)):
        plan, trace = (each[:most] for each in requests(per_second, seconds, 7))
        if what == "check":
            seen = asyncio.run(drive(trace, replicas))
            with open(seen_in(replicas, name), "w") as file:
                json.dump(seen, file)
        else:
            with open(seen_in(replicas, name)) as file:
                seen = json.load(file)
        # What other programs took is not there.
        machines = simulated(plan, replicas, costs, cores - seen[3])
        compare(fleet, name, replicas, trace, plan, seen, machines, told["idle"])


def compare(fleet, name, replicas, trace, plan, seen, machines, idle):
    """Measured, simulated, and the second over the first."""
    seen, used, span, foreign = seen
    theirs = fleet.summary(plan, machines)
    firsts, wholes = sorted(one[2] for one in seen), sorted(one[3] for one in seen)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    p95 = lambda values: sorted(values)[int(0.95 * len(values))]  # noqa: E731
    tokens = sum(one[2] for one in trace)
    prompts = sum(len(one[1]) for one in trace)
    pairs = {
        "tokens_per_second": (tokens / max(one[0] + one[1] + one[3] for one in seen), tokens / max(one.end for one in plan)),
        "first_mean": (mean(firsts), mean([one.first - one.at for one in plan])),
        "first_p95": (p95(firsts), theirs["first_token"]["p95"]),
        "whole_mean": (mean(wholes), theirs["whole"]["mean"]),
        "whole_median": (wholes[len(wholes) // 2], theirs["whole"]["median"]),
        "whole_p95": (p95(wholes), theirs["whole"]["p95"]),
        "known": (sum(one[4] for one in seen) / prompts, theirs["known"]),
        "cpu": (used, sum(one.busy for one in machines[0].servers) + machines[0].front.busy + idle * span),
    }
    print(json.dumps({"replicas": replicas, "load": name, "requests": len(trace), "others": round(foreign, 3), "late": round(max(one[1] for one in seen), 4),
                      **{key: (round(a, 4), round(b, 4), round(b / a, 3)) for key, (a, b) in pairs.items()}}), flush=True)


main()
