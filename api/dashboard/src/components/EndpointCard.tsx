import { useState } from "react";

import { ApiError, remove } from "../api/client";
import type { Endpoint } from "../api/types";
import { age } from "../format";
import { Link } from "../router";
import { Notice } from "./Notice";
import { Segments } from "./Segments";
import { Snippet } from "./Snippet";
import { StatusMark } from "./StatusMark";

/** A prompt that the endpoint can answer. */
function example(endpoint: Endpoint): string {
  if (endpoint.text) return "a cat";
  return endpoint.num_classes === null ? "" : "7";
}

function asCurl(endpoint: Endpoint): string {
  const prompt = example(endpoint);
  const wanted = prompt && `, "prompt": "${prompt}"`;
  return `curl ${endpoint.url}/images/generations \\
  -H "Authorization: Bearer $FEWSTEP_API_KEY" -H "Content-Type: application/json" \\
  -d '{"model": "${endpoint.name}"${wanted}, "seed": 1}'`;
}

function asPython(endpoint: Endpoint): string {
  return `import base64, os
from openai import OpenAI

client = OpenAI(base_url="${endpoint.url}", api_key=os.environ["FEWSTEP_API_KEY"])
answer = client.images.generate(
    model="${endpoint.name}", prompt="${example(endpoint)}", response_format="b64_json",
    extra_body={"seed": 1, "num_inference_steps": ${endpoint.steps[0] ?? 1}},
)
open("image.png", "wb").write(base64.b64decode(answer.data[0].b64_json))`;
}

export function EndpointCard({ endpoint, onChange }: { endpoint: Endpoint; onChange: () => void }) {
  const [view, setView] = useState<"curl" | "python">("curl");
  const [sure, setSure] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);

  const onDelete = async (): Promise<void> => {
    setSure(false);
    try {
      await remove(`/v1/endpoints/${endpoint.id}`);
      onChange();
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setError(cause);
    }
  };

  return (
    <article className="card tile" data-endpoint={endpoint.name}>
      <div className="row spread">
        <h2>{endpoint.name}</h2>
        <StatusMark status={endpoint.status} />
      </div>
      <p className={endpoint.status === "failed" ? "wrong" : "small quiet"}>{endpoint.detail}</p>
      <dl className="facts">
        <dt>Student</dt><dd><Link href={`/students/${endpoint.student_id}`}>{endpoint.student}</Link></dd>
        <dt>Steps</dt><dd>{endpoint.steps.join(", ")}</dd>
        <dt>Models</dt>
        <dd className="mono">{endpoint.name}{endpoint.with_teacher && <>, {endpoint.name}:teacher</>}</dd>
        <dt>Base URL</dt><dd className="mono">{endpoint.url}</dd>
        <dt>Made</dt><dd>{age(endpoint.created_at)}</dd>
      </dl>
      <Segments label="Call it with" options={[["curl", "curl"], ["python", "openai-python"]]} value={view}
        onChange={setView} />
      <Snippet text={view === "curl" ? asCurl(endpoint) : asPython(endpoint)} label={`Call ${endpoint.name}`} />
      <Notice error={error} />
      <div className="row">
        {endpoint.status === "ready" && (
          <Link href={`/playground?endpoint=${endpoint.name}`} className="button primary">Play</Link>
        )}
        {endpoint.status !== "deleting" && !sure && (
          <button type="button" className="button" onClick={() => setSure(true)}>Delete</button>
        )}
        {sure && (
          <>
            <button type="button" className="button danger" onClick={() => void onDelete()}>Delete {endpoint.name}</button>
            <button type="button" className="button bare" onClick={() => setSure(false)}>Keep</button>
          </>
        )}
      </div>
    </article>
  );
}
