import { post } from "../api/client";
import type { ImagesAnswer } from "../api/types";

export interface Shot {
  src: string;
  seed: number;
}

export interface Run {
  model: string;
  shots: Shot[];
  steps: number;
  ms: number;
}

export interface Asked {
  label: number | null;
  prompt: string;
  seed: number;
  n: number;
}

/** One request to the images API; `ms` is what the gateway measured for all n images. */
export async function generate(model: string, steps: number, asked: Asked, signal: AbortSignal): Promise<Run> {
  const wanted = asked.label !== null ? { class_label: asked.label } : { prompt: asked.prompt };
  const body = { model, ...wanted, n: asked.n, seed: asked.seed, num_inference_steps: steps };
  const answer = await post<ImagesAnswer>("/v1/images/generations", body, signal);
  return {
    model,
    steps: answer.num_inference_steps,
    ms: answer.duration_ms,
    shots: answer.data.map((image) => ({ src: `data:image/png;base64,${image.b64_json}`, seed: image.seed })),
  };
}
