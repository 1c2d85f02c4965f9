"""Uploads FILE to BUCKET/KEY in parts of PART_BYTES, PARALLEL at a time, and prints the seconds that it took."""

import os
import sys
import time

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

file, bucket, key, part_bytes, parallel = sys.argv[1:]
store = boto3.client(
    "s3",
    endpoint_url=os.environ["QUAYMASTER_TEST_S3_ENDPOINT"],
    region_name=os.environ["QUAYMASTER_TEST_S3_REGION"],
    aws_access_key_id=os.environ["QUAYMASTER_TEST_S3_ACCESS_KEY"],
    aws_secret_access_key=os.environ["QUAYMASTER_TEST_S3_SECRET_KEY"],
    # Garage refuses the checksums that boto3 sends by default over plain http.
    config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
)
transfer = TransferConfig(
    multipart_threshold=int(part_bytes), multipart_chunksize=int(part_bytes), max_concurrency=int(parallel)
)
begun = time.monotonic()
store.upload_file(file, bucket, key, Config=transfer)
print(time.monotonic() - begun)
