"""Processes that compute together, for tests."""

import os
import tempfile
from contextlib import ExitStack
from multiprocessing import get_context

import cloudpickle


class Ranks:
    """Some processes, each with one thread, in a process group of gloo.

    Parameters
    ----------
    n : int
    """

    def __init__(self, n):
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        context = get_context("spawn")
        self._processes, self._pipes = [], []
        for rank in range(n):
            mine, other = context.Pipe()
            store = os.path.join(folder, "store")
            process = context.Process(target=_serve, args=(other, rank, n, store), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(mine)

    def __call__(self, function, *arguments):
        """Call a function in all processes, and return what each returns, or raise its error."""
        for pipe in self._pipes:
            pipe.send_bytes(cloudpickle.dumps((function, arguments)))
        answers = []
        for pipe in self._pipes:
            assert pipe.poll(120), "a process does not answer"
            answers.append(cloudpickle.loads(pipe.recv_bytes()))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self):
        for process in self._processes:
            process.kill()
            process.join()
        self._stack.close()


def _serve(pipe, rank, n, store):
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=n)
    while True:
        function, arguments = cloudpickle.loads(pipe.recv_bytes())
        try:
            answer = function(*arguments)
        except Exception as error:
            answer = error
        pipe.send_bytes(cloudpickle.dumps(answer))
