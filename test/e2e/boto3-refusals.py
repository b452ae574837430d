"""What boto3 is answered at the endpoint argv[1], as JSON: a label, and the error's name or "ok".

Parameters are not validated on this side, so that the endpoint has to."""

import json
import sys

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

URL = sys.argv[1]
CONFIG = {"parameter_validation": False, "retries": {"max_attempts": 0}}
outcomes = {}


def client(**options):
    config = Config(**CONFIG, **options.pop("config", {}))
    return boto3.client("ebs", endpoint_url=URL, config=config, **options)


def outcome(label, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        outcomes[label] = error.response["Error"]["Code"]
        assert error.response["Error"]["Message"], error.response
        return None
    outcomes[label] = "ok"
    return answer


ebs = client()
ARN = "arn:aws:kms:us-east-1:123456789012:key/"


def start(label, **arguments):
    return outcome(label, ebs.start_snapshot, VolumeSize=1, **arguments)


for length in (127, 128):
    start(f"tag key {length}", Tags=[{"Key": "k" * length, "Value": ""}])
for length in (255, 256):
    start(f"tag value {length}", Tags=[{"Key": "k", "Value": "v" * length}])
    start(f"description {length}", Description="d" * length)
start("description 0", Description="")
start("key without a name", Encrypted=True, KmsKeyArn=ARN)
start("no key at all", Encrypted=True, KmsKeyArn="mine")
tags = [{"Key": key, "Value": "v"} for key in "abc"]
first = start("token", ClientToken="t", Tags=tags)
second = start("token, tags in another order", ClientToken="t", Tags=tags[::-1])
assert first["SnapshotId"] == second["SnapshotId"], (first, second)
start("token, other tags", ClientToken="t", Tags=tags[1:])

snapshot = first["SnapshotId"]
done = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
outcomes["complete"] = done["Status"]
outcomes["complete again"] = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)["Status"]
for results in (99, 100, 10_000, 10_001):
    outcome(f"results {results}", ebs.list_snapshot_blocks, SnapshotId=snapshot, MaxResults=results)
    outcome(f"changed {results}", ebs.list_changed_blocks, FirstSnapshotId=snapshot,
            SecondSnapshotId=snapshot, MaxResults=results)
outcome("one snapshot to compare", ebs.list_changed_blocks, SecondSnapshotId=snapshot)

for label, other in {
    "wrong secret": client(aws_secret_access_key="guess", aws_access_key_id="test"),
    "unknown key": client(aws_secret_access_key="secret", aws_access_key_id="other"),
    "unsigned": client(config={"signature_version": UNSIGNED}),
}.items():
    outcome(label, other.list_snapshot_blocks, SnapshotId=snapshot)
print(json.dumps(outcomes))
