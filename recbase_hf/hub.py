"""What the Hub answers when it does not do what was asked, in words that name the repository and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["explained_hub_errors"]


@contextmanager
def explained_hub_errors(repo_id: str) -> Iterator[None]:
    """Errors of `huggingface_hub` as built-in ones that say what to do.

    Raises:
        ConnectionError: there is no network, or the Hub was told not to be asked; or the connection broke off.
        FileNotFoundError: there is no such repository or revision for this token, or it is not in the cache.
        PermissionError: the token is missing, expired, wrong, or may not do this.
        OSError: the Hub answered something else.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError(f"{repo_id} is not reached: HF_HUB_OFFLINE is set; unset it and try again") from error
    except LocalTokenNotFoundError as error:
        raise PermissionError(
            f"{repo_id} cannot be written without a token: log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no such revision; look it up on the page of its files") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no repository {repo_id} on the Hub for this token; check the spelling and, if it is private, "
            "log in with `hf auth login` as somebody who may read it"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{repo_id} is not in the cache and the Hub cannot be reached; connect to the network and load it once"
        ) from error
    except HfHubHTTPError as error:
        raise _of_status(repo_id, error.response.status_code, str(error)) from error
    except OSError as error:  # as transformers passes it on; what it says of other answers is good
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 401 and "credentials" in str(error):
            raise _of_status(repo_id, 401, str(error)) from error
        raise
    except Exception as error:
        # Version 1 of huggingface_hub speaks through httpx, version 2 through httpx2.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):
            raise
        raise ConnectionError(
            f"the Hub was not reached, or the connection broke off ({error or type(error).__name__}), while {repo_id} "
            "was asked for; look at the network and give the same command again"
        ) from error


def _of_status(repo_id: str, status: int, words: str) -> OSError:
    if status == 401:
        return PermissionError(
            f"the Hub does not accept the token for {repo_id}: it is wrong or has expired; make a new one in the "
            "settings of your account and log in with `hf auth login`, or set HF_TOKEN"
        )
    if status == 403:
        return PermissionError(
            f"this token may not write {repo_id}; make one with write access, or name a repository that is yours"
        )
    if status in (409, 412):
        return OSError(f"{repo_id} was changed by somebody else meanwhile; look at it and give the command again")
    return OSError(f"the Hub answered {status} for {repo_id}: {words.strip()}")
