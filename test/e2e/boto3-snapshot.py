"""Writes and reads snapshots at the endpoint argv[1] through boto3; prints ok."""

import base64
import hashlib
import sys

import boto3
from botocore.exceptions import ClientError

BLOCK = 524288
ebs = boto3.client("ebs", endpoint_url=sys.argv[1])


def digest(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(snapshot, index, data):
    answer = ebs.put_snapshot_block(
        SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=BLOCK,
        Checksum=digest(data), ChecksumAlgorithm="SHA256")
    assert answer["Checksum"] == digest(data)


def blocks(snapshot):
    token, found = None, {}
    while True:
        more = {"NextToken": token} if token else {}
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, **more)
        assert page["BlockSize"] == BLOCK and page["ExpiryTime"].year > 2000
        for block in page["Blocks"]:
            answer = ebs.get_snapshot_block(SnapshotId=snapshot, **block)
            data = answer["BlockData"].read()
            assert len(data) == answer["DataLength"] == BLOCK
            assert digest(data) == answer["Checksum"]
            found[block["BlockIndex"]] = data[0]
        token = page.get("NextToken")
        if not token:
            return found


started = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "a", "Value": "b"}])
parent = started["SnapshotId"]
assert started["Status"] == "pending" and started["BlockSize"] == BLOCK
for index in range(101):
    put(parent, index * 3, bytes([index]) * BLOCK)
assert ebs.complete_snapshot(SnapshotId=parent, ChangedBlocksCount=101)["Status"] == "pending"
assert ebs.complete_snapshot(SnapshotId=parent, ChangedBlocksCount=101)["Status"] == "completed"
expected = {index * 3: index for index in range(101)}
assert blocks(parent) == expected

child = ebs.start_snapshot(VolumeSize=2, ParentSnapshotId=parent)["SnapshotId"]
put(child, 3, b"\xff" * BLOCK)
put(child, 4000, b"\xfe" * BLOCK)
ebs.complete_snapshot(SnapshotId=child, ChangedBlocksCount=2)
assert blocks(child) == {**expected, 3: 255, 4000: 254}
changes = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)
assert [(c["BlockIndex"], "FirstBlockToken" in c) for c in changes["ChangedBlocks"]] == [
    (3, True), (4000, False)]

try:
    put(child, 0, b"\0" * BLOCK)
    raise AssertionError("a completed snapshot took a block")
except ClientError as error:
    assert error.response["Error"]["Code"] == "ValidationException", error.response
    assert error.response["Reason"] == "INVALID_SNAPSHOT_ID", error.response
print("ok")
