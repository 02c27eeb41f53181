import type { components } from "./schema";

type Schemas = components["schemas"];

/** Answers say every field, also those with a default. */
export type Job = Required<Schemas["JobView"]>;
export type JobSpec = Job["spec"];
export type Status = Schemas["Status"];
export type Attempt = Schemas["AttemptView"];
export type JobEvent = Schemas["EventView"];
export type Metric = Schemas["MetricView"];
export type LogLine = Schemas["LogView"];
export type Sample = Schemas["SampleView"];
export type Checkpoint = Schemas["CheckpointView"];
export type Method = Schemas["MethodView"];
export type Teacher = Schemas["TeacherView"];
export type Dataset = Schemas["DatasetView"];
export type Student = Schemas["StudentView"];
export type Figures = Schemas["Figures"];
export type Endpoint = Schemas["EndpointView"];
export type EventType = Schemas["EventType"];
export type Webhook = Schemas["WebhookView"];
export type NewWebhook = Schemas["NewWebhook"];
export type Delivery = Schemas["DeliveryView"];
export type Validation = Schemas["Validation"];
export type ImagesAnswer = Schemas["ImagesAnswer"];
export type ImagesRequest = Schemas["ImagesRequest"];

export interface Page<T> {
  data: T[];
  has_more: boolean;
  next: string | null;
}

/** One wrong field of a request: a JSON pointer into it, and what to do about it. */
export interface Pointer {
  pointer: string;
  detail: string;
}
