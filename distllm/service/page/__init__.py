"""The page: jobs, their answers, workers and SQL in a browser.

Everything is rendered here and reads well without a script; `static/page.js` fetches a page anew when the stream of
events says that something has changed. Nothing is asked of any other host. Limits: what is shown live is what stands
in an element with `data-live`, and a page that is not looked at is not kept up to date.
"""

from distllm.service.page.rooms import page_rooms

__all__ = ["page_rooms"]
