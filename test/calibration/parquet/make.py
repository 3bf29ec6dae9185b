"""Makes the Parquet files of this folder: pip install pyarrow && python make.py"""

import pyarrow as pa
import pyarrow.parquet as pq

texts = pa.table({"id": [1, 2, 3], "text": ["first document", "zweites, mit é", "third"]})
pq.write_table(texts, "text-zstd.parquet", compression="zstd", row_group_size=2)
pq.write_table(texts, "text-snappy.parquet", compression="snappy")
ids = pa.array([[1, 2, 3], [], [4, 5]], type=pa.list_(pa.int64()))
pq.write_table(pa.table({"input_ids": ids}), "ids-int64.parquet")
pq.write_table(pa.table({"input_ids": ids.cast(pa.list_(pa.int32()))}), "ids-int32.parquet", compression="gzip")
pq.write_table(pa.table({"text": [1.5, 2.5]}), "numbers.parquet")
