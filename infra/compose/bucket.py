"""Makes the bucket that DECISION_FILES names, once its store answers."""

from __future__ import annotations

import os
import time

from pyarrow.fs import FileType, S3FileSystem

bucket = os.environ["DECISION_FILES"].removeprefix("s3://").split("/")[0]
store = S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
for attempt in range(60):
    try:
        if store.get_file_info(bucket).type == FileType.NotFound:
            store.create_dir(bucket)
        break
    except OSError:
        if attempt == 59:
            raise
        time.sleep(1.0)
