"""A client under test, as a process: one line of JSON in for each request, one line of JSON out for its answer.

Whatever else it prints on standard output (some clients log there) goes to its log with its standard error.
"""
import json
import queue
import subprocess
import threading


class NotAvailable(Exception):
    """The client has no such feature; says why."""


class ClientFailed(Exception):
    """The client reported an error, did not answer in time, or ended."""


class Driver:
    def __init__(self, client, command, cwd, bootstrap, log):
        self.client, self.answers = client, queue.Queue()
        self.log = open(log, "a")
        self.process = subprocess.Popen([*command, bootstrap], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith('{"'):
                try:
                    self.answers.put(json.loads(line))
                    continue
                except ValueError:
                    pass
            self.log.write(line)
            self.log.flush()
        self.answers.put(None)

    def ask(self, do, timeout=60, **request):
        """The answer, a dictionary. NotAvailable or ClientFailed otherwise."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise ClientFailed(f"{do}: no answer in {timeout} s") from None
        except OSError as error:
            raise ClientFailed(f"{do}: the client has ended: {error}") from error
        if answer is None:
            raise ClientFailed(f"{do}: the client ended with {self.process.wait()}")
        if "na" in answer:
            raise NotAvailable(answer["na"])
        if "error" in answer:
            raise ClientFailed(f"{do}: {answer['error'][:300]}")
        return answer

    def close(self):
        """Ends it: politely by the end of its input, after 10 s not."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        self.log.close()
