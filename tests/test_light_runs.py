"""A plain run begins soon because it loads little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.mock_server import serving

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import sys
from s1batch.cli import main
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    print([name for name in ("polars", "pandas", "pyarrow.compute", "pyarrow.dataset") if name in sys.modules])
"""


def test_questions_about_a_table_need_no_data_frames(tmp_path):
    pq.write_table(pa.table({"text": [f"row {number}" for number in range(300)]}), tmp_path / "rows.parquet")
    with serving(latency_s=0.0) as server:
        job = {
            "source": {"kind": "table", "path": "rows.parquet"},
            "job": {"kind": "ask", "prompt": "What does {{ text }} say?"},
            "engine": {"kind": "http", "urls": [server.url]},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        command = [sys.executable, "-c", RUN, "run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "out")]
        for said in ("300 chunks in 3 parts", "nothing to do"):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
            assert said in done.stderr
            assert "300 rows for 300 chunks" in done.stdout
            assert done.stdout.splitlines()[-1] == "[]"
