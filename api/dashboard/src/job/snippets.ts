import { short } from "../form/short";
import type { JobSpec } from "../api/types";

/** The same job from a shell or a program; nulls and empty parts are left out. */

export function asCurl(spec: JobSpec): string {
  return `curl ${location.origin}/v1/jobs \\
  -H "Authorization: Bearer $FEWSTEP_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '${JSON.stringify(short(spec), null, 2).replaceAll("'", "'\\''")}'`;
}

export function asCli(spec: JobSpec): string {
  return `cat > job.yaml <<'EOF'
${JSON.stringify(short(spec), null, 2)}
EOF
fewstep jobs submit job.yaml`;
}

function python(value: unknown, indent: string): string {
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((item) => python(item, indent)).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const inner = `${indent}    `;
    const rows = Object.entries(value).map(([k, v]) => `${inner}${JSON.stringify(k)}: ${python(v, inner)},`);
    return `{\n${rows.join("\n")}\n${indent}}`;
  }
  return JSON.stringify(value);
}

export function asPython(spec: JobSpec): string {
  return `import os

import httpx

job = httpx.post(
    "${location.origin}/v1/jobs",
    headers={"Authorization": "Bearer " + os.environ["FEWSTEP_API_KEY"]},
    json=${python(short(spec), "    ")},
).raise_for_status().json()
print(job["id"])`;
}
