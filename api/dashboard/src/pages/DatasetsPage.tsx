import { DatasetForm } from "../components/DatasetForm";
import { PageHead } from "../components/PageHead";
import { bytes, count, moment } from "../format";
import { useDatasets } from "../hooks/useDatasets";
import { Link } from "../router";

export function DatasetsPage() {
  const { datasets, refresh } = useDatasets();
  return (
    <>
      <PageHead title="Datasets" lead="Images, captions and prompts of your own, looked at when they are registered." />
      <div className="stack">
        {datasets?.length === 0 && (
          <div className="empty">
            <h2>No datasets yet</h2>
            <p className="quiet">Many methods need none; those that learn from images need them for most teachers.</p>
          </div>
        )}
        <div className="tiles">
          {datasets?.map((dataset) => (
            <article key={dataset.id} className="card tile">
              <h2>{dataset.name}</h2>
              <dl className="facts">
                <dt>Format</dt><dd className="mono">{dataset.format}</dd>
                <dt>Content</dt><dd className="mono">{dataset.content}</dd>
                <dt>Classes</dt><dd>{dataset.classes?.length ?? "none"}</dd>
                <dt>Samples</dt><dd>{count(dataset.samples)}</dd>
                <dt>Size</dt><dd>{bytes(dataset.bytes)}</dd>
                <dt>Source</dt><dd className="mono">{dataset.source}</dd>
                <dt>Registered</dt><dd>{moment(dataset.created_at)}</dd>
              </dl>
              <div className="row">
                <Link href={`/jobs/new?data=${dataset.name}`} className="button primary">Learn from it</Link>
              </div>
            </article>
          ))}
        </div>
        <DatasetForm onMade={refresh} />
      </div>
    </>
  );
}
