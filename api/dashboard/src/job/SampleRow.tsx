import type { Sample } from "../api/types";
import { PixelImage } from "../components/PixelImage";
import { count, plural } from "../format";

export function SampleRow({ sample, stepFirst = false }: { sample: Sample; stepFirst?: boolean }) {
  const sampling = plural(sample.sampling_steps, "step");
  const who = stepFirst ? `at ${count(sample.step)}` : sample.role;
  return (
    <div className="sample-row" data-role={sample.role}>
      <div className="sample-label">
        <strong className={`${sample.role}-ink`}>{who}</strong>
        <span className="quiet num">in {sampling}</span>
      </div>
      <PixelImage path={sample.url} zoom={6.5}
        alt={`Samples of the ${sample.role} in ${sampling}, at training step ${sample.step}`} />
    </div>
  );
}
