{{- define "postroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "postroom.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "postroom.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "postroom.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "postroom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "postroom.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What a Deployment selects by; it never changes. Call with (dict "root" $ "component" "api"). */}}
{{- define "postroom.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postroom.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* What the chart itself says of an object, by which some of it is found. */}}
{{- define "postroom.ownLabels" -}}
{{ include "postroom.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: postroom
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* All labels of an object, each once: the chart's own, `labels` of this object, `commonLabels`, in this order. */}}
{{- define "postroom.labels" -}}
{{- toYaml (merge (dict) (include "postroom.ownLabels" . | fromYaml) (.labels | default dict) (.root.Values.commonLabels | default dict)) -}}
{{- end -}}

{{/* Those that an upgrade of the chart leaves as they are: a pod that has others is made anew. */}}
{{- define "postroom.lastingLabels" -}}
{{- toYaml (omit (include "postroom.labels" . | fromYaml) "helm.sh/chart" "app.kubernetes.io/version") -}}
{{- end -}}

{{/* name, labels and annotations of an object: (dict "root" $ "component" "api" "name" "x" "annotations" dict) */}}
{{- define "postroom.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "postroom.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "postroom.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "postroom.configMapName" -}}
{{- default (include "postroom.fullname" .) .Values.config.existingConfigMap -}}
{{- end -}}

{{- define "postroom.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "postroom.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Variables of every process of Postroom. */}}
{{- define "postroom.env" -}}
- name: POSTROOM_CONFIG
  value: /etc/postroom/postroom.toml
- name: POSTROOM_HOST
  value: 0.0.0.0
- name: POSTROOM_PORT
  value: {{ .Values.ports.http | quote }}
- name: POSTROOM_METRICS_PORT
  value: {{ .Values.ports.metrics | quote }}
- name: POSTROOM_LOG_FORMAT
  value: {{ .Values.logging.format }}
- name: POSTROOM_LOG_LEVEL
  value: {{ .Values.logging.level }}
{{- if .Values.tracing.enabled }}
- name: POSTROOM_TRACES
  value: otlp
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.tracing.endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.tracing.share | quote }}
{{- end }}
{{- with .Values.templates.dir }}
- name: POSTROOM_TEMPLATES_DIR
  value: {{ . }}
{{- end }}
{{- if .Values.redis.enabled }}
{{- with .Values.redis.auth.existingSecret }}
- name: POSTROOM_REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.redis.auth.passwordKey }}
{{- end }}
- name: POSTROOM_REDIS_URL
  value: redis://{{ if .Values.redis.auth.existingSecret }}:$(POSTROOM_REDIS_PASSWORD)@{{ end }}{{ include "postroom.fullname" . }}-redis:6379/0
{{- else }}
{{- with .Values.redis.external }}
{{- if .existingSecret }}
- name: POSTROOM_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .urlKey }}
{{- with .arqUrlKey }}
- name: POSTROOM_ARQ_URL
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.redis.external.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.secrets.env }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "postroom.volumeMounts" -}}
- name: config
  mountPath: /etc/postroom
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.templates.volume }}
- name: templates
  mountPath: {{ required "templates.dir says where templates.volume is mounted" .Values.templates.dir }}
  readOnly: true
{{- end }}
{{- range .Values.secrets.files }}
- name: secret-{{ .name }}
  mountPath: /etc/postroom-secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- if and .Values.redis.external.caSecret (not .Values.redis.enabled) }}
- name: redis-ca
  mountPath: /etc/postroom-redis
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "configMap" name) */}}
{{- define "postroom.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with .root.Values.templates.volume }}
- name: templates
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range .root.Values.secrets.files }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
{{- end }}
{{- if and .root.Values.redis.external.caSecret (not .root.Values.redis.enabled) }}
- name: redis-ca
  secret:
    secretName: {{ .root.Values.redis.external.caSecret }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "postroom.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Waits without a shell: by the kubelet where it can, else by the interpreter that is in the image. */}}
{{- define "postroom.preStop" -}}
preStop:
  {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  sleep:
    seconds: {{ .Values.api.preStopSeconds }}
  {{- else }}
  exec:
    command: [python, -c, "import time; time.sleep({{ .Values.api.preStopSeconds }})"]
  {{- end }}
{{- end -}}

{{- define "postroom.spread" -}}
{{- if .values.topologySpreadConstraints -}}
{{ toYaml .values.topologySpreadConstraints }}
{{- else -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "postroom.selectorLabels" (dict "root" $.root "component" $.component) | nindent 6 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The pod of both Deployments: (dict "root" $ "component" "api" "command" "serve" "values" .Values.api) */}}
{{- define "postroom.podTemplate" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "postroom.labels" (merge (dict "labels" (merge (dict "postroom/scraped" "true") (.values.podLabels | default dict))) .) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: postroom
    {{- if and $root.Values.config.toml $root.Values.config.restartOnChange }}
    checksum/config: {{ include "postroom.toml" $root | sha256sum }}
    {{- end }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "postroom.serviceAccountName" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
  {{- with .values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "postroom.podSecurity" 10001 | nindent 4 }}
  {{- with $root.Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: postroom
      image: {{ include "postroom.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .command }}]
      securityContext:
        {{- include "postroom.containerSecurity" $root | nindent 8 }}
      env:
        {{- include "postroom.env" $root | nindent 8 }}
      ports:
        {{- if eq .component "api" }}
        - name: http
          containerPort: {{ $root.Values.ports.http }}
        {{- end }}
        - name: metrics
          containerPort: {{ $root.Values.ports.metrics }}
      {{- include "postroom.probes" $root | nindent 6 }}
      {{- if eq .component "api" }}
      lifecycle:
        {{- include "postroom.preStop" $root | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        {{- include "postroom.volumeMounts" $root | nindent 8 }}
  volumes:
    {{- include "postroom.volumes" (dict "root" $root "configMap" (include "postroom.configMapName" $root)) | nindent 4 }}
  topologySpreadConstraints:
    {{- include "postroom.spread" . | trim | nindent 4 }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Pods there may be at once: what a disruption budget is measured by. */}}
{{- define "postroom.apiReplicas" -}}
{{- if .Values.api.autoscaling.enabled }}{{ .Values.api.autoscaling.minReplicas }}{{ else }}{{ .Values.api.replicas }}{{ end -}}
{{- end -}}

{{- define "postroom.workerReplicas" -}}
{{- if eq .Values.worker.scaling.kind "none" }}{{ .Values.worker.replicas }}{{ else }}{{ .Values.worker.scaling.minReplicas }}{{ end -}}
{{- end -}}

{{/*
What KEDA asks: the seconds that the pods are each worth `oldestDueSeconds` of, so one pod more than the fewest for each of them.
No worker helps an agent that a person paused, nor one that has a channel standing still and sends over no other.
*/}}
{{- define "postroom.workersWanted" -}}
{{- $ns := printf "namespace=%q" .Release.Namespace -}}
query: >-
  (max(max by (agent) (postroom_oldest_due_seconds{ {{- $ns -}} })
  unless on (agent) (max by (agent) (postroom_agent_paused{ {{- $ns -}} }) == 1)
  unless on (agent) (max by (agent) (postroom_channel_stopped{ {{- $ns -}} }) == 1
  unless on (agent) sum by (agent) (rate(postroom_attempts_total{ {{- $ns -}} ,outcome="sent"}[5m])) > 0))
  or vector(0)) + {{ mul .Values.worker.scaling.oldestDueSeconds (sub .Values.worker.scaling.minReplicas 1) }}
{{- end -}}

{{/* The configuration file: as it is given, and a section for each canary. */}}
{{- define "postroom.toml" -}}
{{ .Values.config.toml }}
{{- range $agent, $canary := .Values.monitoring.canaries }}

[agents.{{ $agent }}.canary]
{{- range $key, $value := $canary }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- end }}
