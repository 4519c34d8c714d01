"""Bytes out, answer in: the only room that knows an HTTP library.

Promises:
- One pool for all destinations of a client, made at start, off the event loop where it blocks.
- What a library leaves for its first client and its first request is imported where no loop waits
  for it: with the first client that is made outside of one, or in a thread as one starts.
- A redirect is never followed, and at most `MAX_ANSWER` bytes of an answer are read, as they came
  (nothing is inflated).
- Every way in which a request can fail is a `NoAnswer`, what a user's own client raises included;
  nothing else comes out but cancellation.
- A request that outlasts its total time is cancelled, and its pool retires: httpx 0.28 can leave
  a connection of a cancelled request taken for ever, so a fresh pool takes over.
- What a server said beyond an answer is not taken for the answer to the next request.
- A forked child that lets go of its parent's pool leaves the connections to the parent.
- A proxy of the environment that cannot be used is said when the pool is made; if that is a fresh
  one for one that would retire, the old goes on.
- The own pool keeps no cookies: what an endpoint sets would only grow, and travel with the key.
- What fails shows neither a request's headers nor its content in the frames from here on down.

`pool.py` keeps these whatever the library is; `by_httpx.py` and `by_aiohttp.py` each know one.
"""

from asyncanalytics.transport.loading import load, loaded
from asyncanalytics.transport.pool import Transport
from asyncanalytics.transport.way import Answer

__all__ = ["Answer", "Transport", "load", "loaded"]
