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
  return `fewstep jobs submit - <<'EOF'
${JSON.stringify(short(spec), null, 2)}
EOF`;
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
  return `from api.client import Client

with Client("${location.origin}") as client:
    job = client.submit(${python(short(spec), "    ")})
    print(job.id)`;
}
