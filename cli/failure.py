"""How a command ends: the exit codes, and the one exception that carries a sentence for the person."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1  # the request failed or was refused
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3  # no fairwayd answers, or the cluster has no majority
EXIT_TIMED_OUT = 4
EXIT_WARNINGS = 5  # doctor: nothing is broken, and something should be done
EXIT_FOUND_BROKEN = 6  # doctor: something is broken; net trace: a hop fails
EXIT_TASKS_FAILED = 7  # what was deployed does not work, and nothing more is done about it
EXIT_ROLLED_BACK = 8  # ... and the version before it is back
EXIT_PAUSED = 9  # the rollout waits for a person
EXIT_INTERRUPTED = 130

EXIT_CODES_HELP = """exit status:
  0    done
  1    the request failed or was refused
  2    wrong usage
  3    the cluster cannot be reached, or has lost its majority
  4    timed out waiting
  5    'fairway doctor' has warnings
  6    'fairway doctor' found something broken, 'fairway net trace' a hop that fails,
       'fairway net policy test' says no
  7    'fairway deploy', 'fairway service ...': the new tasks failed; the rollout has stopped;
       'fairway deploy', 'fairway trigger': a run of a job failed
  8    the new tasks failed, and the service was rolled back
  9    the rollout is paused, or waits until it is promoted
  130  interrupted (Ctrl-C)
  'fairway exec' and 'fairway run' end with the exit status of the command they ran; 'fairway run' with 125 where it
  could not be started."""


class CommandFailed(Exception):
    """Ends the command: "fairway: <asked>: <message>" on stderr, and `exit_code`."""

    def __init__(self, asked: str, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(f"{asked}: {message}" if asked else message)
        self.exit_code = exit_code
