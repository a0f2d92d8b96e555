"""The denominator of capture: a FastAPI route that reads the same body and answers 202, and nothing else."""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/capture/v1/touches")
async def touches(request: Request) -> Response:
    """Read the body, answer 202."""
    await request.body()
    return Response(b'{"accepted":1,"rejected":[]}', 202, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
