"""Random programs of tasks, run by balrog and by a model of it: everything happens in the same order.

A program is a generator of requests. balrog's side does them; the model's is a queue of who is runnable, first come,
first served, written as plainly as that can be.
"""

from collections import deque

import balrog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEMAPHORES, EVENTS = (1, 2), 1
#: How often the main task lets the others run before it cancels who is stuck.
PATIENCE = 60

KINDS = ("yield",) * 4 + ("with",) * 4 + ("spawn",) * 2 + ("join", "cancel", "cancel", "shield", "wait", "set")


def requests(random, depth, count):
    """What a task asks for, one after another; some of it has others inside."""
    made = []
    for kind in random.choices(KINDS, k=count):
        inner = requests(random, depth - 1, random.randint(1, 4)) if depth else [("yield",)]
        match kind:
            case "yield":
                made.append(("yield",))
            case "with":
                made.append(("with", random.randrange(len(SEMAPHORES)), inner))
            case "spawn" | "shield":
                made.append((kind, inner))
            case "join" | "cancel":
                made.append((kind, random.randrange(3)))
            case _:
                made.append((kind, random.randrange(EVENTS)))
    return made


def program(name, requests, log, catch):
    """A task of the program; asks for what it needs by ``yield``, and writes down what happens."""
    children = []
    log.append((name, "begins"))
    try:
        yield from body(name, requests, log, children)
        log.append((name, "ends"))
    except catch:
        log.append((name, "cancelled"))
        # Its clean-up may wait.
        yield ("yield",)
        log.append((name, "cleaned"))
        raise


def body(name, requests, log, children):
    for position, (kind, *rest) in enumerate(requests):
        match kind:
            case "spawn":
                child = f"{name}.{len(children)}"
                children.append((yield ("spawn", child, rest[0])))
            case "join" | "cancel":
                if rest[0] < len(children):
                    log.append((name, position, kind, (yield (kind, children[rest[0]]))))
            case "with":
                yield ("acquire", rest[0])
                log.append((name, position, "has", rest[0]))
                try:
                    yield from body(name, rest[1], log, children)
                finally:
                    yield ("release", rest[0])
            case "shield":
                yield ("shield",)
                try:
                    yield from body(name, rest[0], log, children)
                finally:
                    yield ("unshield",)
            case _:
                yield (kind, *rest)
                log.append((name, position, kind))


def main(programs, log):
    """Starts the programs, lets them run, cancels who is left, newest first, and waits for their ends."""
    tasks = []
    for number, requests in enumerate(programs):
        tasks.append((yield ("spawn", str(number), requests)))
    for _ in range(PATIENCE):
        yield ("yield",)
    while left := (yield ("left",)):
        log.append(("main", "cancels", len(left)))
        for task in left:
            yield ("cancel", task)
        for number in range(EVENTS):
            # Who is in a shield does not hear of it.
            yield ("set", number)
        for number in range(len(SEMAPHORES)):
            yield ("release", number)
        for _ in range(PATIENCE):
            yield ("yield",)


class Real:
    """balrog's side."""

    def __init__(self):
        self.log = []
        #: All tasks but the main one; the hub's own order is that of its memory.
        self.born = []
        self.semaphores = [balrog.Semaphore(value) for value in SEMAPHORES]
        self.events = [balrog.Event() for _ in range(EVENTS)]

    def run(self, programs):
        balrog.run(self.drive, main(programs, self.log))
        assert balrog.tasks() == []
        return self.log

    def drive(self, generator):
        shields = []
        step, value = generator.send, None
        while True:
            try:
                kind, *rest = step(value)
            except StopIteration:
                return
            try:
                step, value = generator.send, self.do(shields, kind, *rest)
            except balrog.Cancelled as error:
                step, value = generator.throw, error

    def do(self, shields, kind, *rest):
        match kind:
            case "yield":
                balrog.sleep(0)
            case "spawn":
                name, requests = rest
                task = balrog.spawn(self.drive, program(name, requests, self.log, balrog.Cancelled))
                self.born.append(task)
                return task
            case "join":
                rest[0].join()
                return "cancelled" if rest[0].exception() else "ended"
            case "cancel":
                return rest[0].cancel()
            case "acquire":
                self.semaphores[rest[0]].acquire()
            case "release":
                self.semaphores[rest[0]].release()
            case "wait":
                self.events[rest[0]].wait()
            case "set":
                self.events[rest[0]].set()
            case "shield":
                shields.append(balrog.shield(60))
                shields[-1].__enter__()
            case "unshield":
                shields.pop().__exit__(None, None, None)
            case "left":
                return [task for task in self.born if not task.done()]


class Cut(BaseException):
    """The model's cancellation."""


class Modelled:
    """A task of the model."""

    def __init__(self, generator):
        self.generator = generator
        self.step, self.value = generator.send, None
        self.asked = self.told = self.done = False
        self.failed = False
        self.shields = 0
        self.joiners = []
        #: What it waits for; woken ``"ready"`` or to look around.
        self.wait = None
        self.parked = False
        self.wake = None


class Model:
    """What balrog is meant to do."""

    def __init__(self):
        self.log = []
        self.ready = deque()
        self.permits = list(SEMAPHORES)
        self.queues = [deque() for _ in SEMAPHORES]
        self.flags = [False] * EVENTS
        self.waiting = [deque() for _ in range(EVENTS)]
        self.live = []

    def run(self, programs):
        self.main = self.start(main(programs, self.log))
        while self.ready:
            self.turn(self.ready.popleft())
        assert self.live == []
        return self.log

    def start(self, generator):
        task = Modelled(generator)
        self.live.append(task)
        self.ready.append(task)
        return task

    def awake(self, task, wake):
        """A park ends once."""
        if task.parked:
            task.parked, task.wake = False, wake
            self.ready.append(task)

    def turn(self, task):
        """The task runs until it waits or ends."""
        if task.wait is not None:
            wait, task.wait = task.wait, None
            if not self.resumed(task, *wait):
                return
        while True:
            try:
                kind, *rest = task.step(task.value)
            except (StopIteration, Cut) as end:
                self.end(task, isinstance(end, Cut))
                return
            task.step, task.value = task.generator.send, None
            if not self.do(task, kind, *rest):
                return

    def end(self, task, failed):
        task.done, task.failed = True, failed
        self.live.remove(task)
        for joiner in task.joiners:
            self.awake(joiner, "ready")

    def park(self, task, kind, *rest):
        """Waits, unless the task has to hear first that it is cancelled; ``False`` once it is parked."""
        if task.asked and not task.told and not task.shields:
            task.told = True
            task.step, task.value = task.generator.throw, Cut()
            self.leave(task, kind, *rest)
            return True
        task.wait, task.parked = (kind, *rest), True
        if kind == "yield":
            self.awake(task, "ready")
        elif kind == "join":
            rest[0].joiners.append(task)
        return False

    def leave(self, task, kind, *rest):
        """A cancelled task waits for nothing any more; what it got meanwhile is for the next."""
        if kind == "acquire":
            if task in self.queues[rest[0]]:
                self.queues[rest[0]].remove(task)
            elif task.wake == "given":
                self.give(rest[0])
        elif kind == "wait" and task in self.waiting[rest[0]]:
            self.waiting[rest[0]].remove(task)

    def resumed(self, task, kind, *rest):
        """The wait has ended (``True``), or goes on after a look around."""
        if task.wake == "look":
            if kind == "join":
                rest[0].joiners.remove(task)
                if rest[0].done:
                    # Between the two it ended: a wait that is over all the same looks at the cancellation first.
                    return self.park_or_pass(task, kind, *rest)
            if (
                kind in ("acquire", "wait")
                and task not in (self.queues if kind == "acquire" else self.waiting)[rest[0]]
            ):
                task.wake = "given"
                return self.park_or_pass(task, kind, *rest)
            return self.park(task, kind, *rest)
        task.value = self.outcome(*rest) if kind == "join" else None
        return True

    def park_or_pass(self, task, kind, *rest):
        if task.asked and not task.told and not task.shields:
            return self.park(task, kind, *rest)
        task.value = self.outcome(*rest) if kind == "join" else None
        return True

    def outcome(self, task):
        return "cancelled" if task.failed else "ended"

    def give(self, number):
        if self.queues[number]:
            self.awake(self.queues[number].popleft(), "given")
        else:
            self.permits[number] += 1

    def do(self, task, kind, *rest):
        """Whether the task goes on at once."""
        match kind:
            case "yield":
                return self.park(task, "yield")
            case "spawn":
                name, requests = rest
                task.value = self.start(program(name, requests, self.log, Cut))
            case "join":
                if not rest[0].done:
                    return self.park(task, "join", rest[0])
                task.value = self.outcome(rest[0])
            case "cancel":
                task.value = not rest[0].done and not rest[0].asked
                if task.value:
                    rest[0].asked = True
                    self.awake(rest[0], "look")
            case "acquire":
                if not self.permits[rest[0]]:
                    self.queues[rest[0]].append(task)
                    task.wake = None
                    return self.park(task, "acquire", rest[0])
                self.permits[rest[0]] -= 1
            case "release":
                self.give(rest[0])
            case "wait":
                if not self.flags[rest[0]]:
                    self.waiting[rest[0]].append(task)
                    return self.park(task, "wait", rest[0])
            case "set":
                self.flags[rest[0]] = True
                while self.waiting[rest[0]]:
                    self.awake(self.waiting[rest[0]].popleft(), "ready")
            case "shield":
                task.shields += 1
            case "unshield":
                task.shields -= 1
            case "left":
                task.value = [other for other in self.live if other is not task]
        return True


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=True), st.integers(2, 5), st.integers(0, 2), st.integers(1, 6))
def test_everything_happens_in_the_models_order(random, tasks, depth, count):
    programs = [requests(random, depth, count) for _ in range(tasks)]
    assert Real().run(programs) == Model().run(programs), programs
