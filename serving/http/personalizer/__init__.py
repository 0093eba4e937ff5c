"""Azure Personalizer's REST interface on the same core: applications that used it change a URL.

All published versions answer alike: v1.0, v1.1-preview to .3 in the path, and 2022-09-01-preview in the query.
`addresses` says where operations stand and which loop a request means, `errors` how they are refused, and each other
module has the operations of one topic.
"""

from __future__ import annotations

from serving.http.personalizer import configuration, evaluations, holdings, learning, ranking, refusals
from serving.http.personalizer.errors import owns, told
from serving.routes import Route

ROUTES: tuple[Route, ...] = (
    *ranking.ROUTES,
    *configuration.ROUTES,
    *learning.ROUTES,
    *holdings.ROUTES,
    *evaluations.ROUTES,
    *refusals.ROUTES,
)

__all__ = ["ROUTES", "owns", "told"]
