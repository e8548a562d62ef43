{{- define "tracer.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "tracer.selector" -}}
app.kubernetes.io/name: tracer
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "tracer.labels" -}}
{{ include "tracer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tracer.metadata" -}}
name: {{ include "tracer.name" .root }}-{{ .service }}
labels: {{- include "tracer.labels" . | nindent 2 }}
{{- end }}

{{- define "tracer.image" -}}
{{ .root.Values.image.repository }}-{{ .service }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "tracer.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tracer.name" .) }}
{{- end }}

{{- define "tracer.tasksConfigMap" -}}
{{ .Values.existingTasksConfigMap | default (printf "%s-tasks" (include "tracer.name" .)) }}
{{- end }}

{{/* The ports that addresses name: of host:port,host:port and of URLs, where http and https are
80 and 443. */}}
{{- define "tracer.ports" -}}
{{- range compact . }}
{{- $hosts := regexReplaceAll "^[a-z+]+://([^/?]*@)?|[/?].*$" . "" }}
{{- $ports := regexFindAll ":[0-9]+(,|$)" $hosts -1 }}
{{- if regexMatch "^https?://" . }}
{{- $ports = $ports | default (list (ternary "443" "80" (hasPrefix "https:" .))) }}
{{- end }}
{{- range $ports }}{{ trimAll ":," . }} {{ end }}
{{- end }}
{{- end }}

{{/* Whether the service signs: the trainer, also while unsigned versions are still believed. */}}
{{- define "tracer.signs" -}}
{{- if and (eq .service "trainer") .root.Values.signing.existingSecret }}yes{{ end }}
{{- end }}

{{/* What every service is told. */}}
{{- define "tracer.env" -}}
{{- $values := .root.Values -}}
- name: TRACER_INSTANCE
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: TRACER_BOOTSTRAP_SERVERS
  value: {{ required "kafka.bootstrapServers: name your brokers, host:port,host:port" $values.kafka.bootstrapServers | quote }}
{{- with .config.kafkaSecret | default $values.kafka.existingSecret }}
- name: TRACER_KAFKA
  valueFrom: { secretKeyRef: { name: {{ . }}, key: settings } }
{{- end }}
- name: TRACER_REDIS_URL
{{- with .config.redisSecret | default $values.redis.existingSecret }}
  valueFrom: { secretKeyRef: { name: {{ . }}, key: url } }
{{- else }}
  value: {{ required "redis.url or redis.existingSecret: where is Redis?" $values.redis.url | quote }}
{{- end }}
{{- if $values.signing.allowUnsigned }}
- name: TRACER_UNSIGNED
  value: allow
{{- else }}
{{- $_ := required "signing.keysConfigMap: whose signatures count? (`tracerctl keys new`)" $values.signing.keysConfigMap }}
- name: TRACER_TRUSTED_KEYS
  value: /keys/trusted.json
{{- if eq .service "trainer" }}
{{- $_ := required "signing.existingSecret: what does the trainer sign with?" $values.signing.existingSecret }}
{{- end }}
{{- end }}
{{- if include "tracer.signs" . }}
- name: TRACER_SIGNING_KEY_FILE
  value: /signing/signing.pem
{{- end }}
- name: TRACER_TOPIC_PREFIX
  value: {{ $values.kafka.topicPrefix | quote }}
- name: TRACER_GROUP_SUFFIX
  value: {{ $values.kafka.groupSuffix | quote }}
- name: TRACER_DELIVERY
  value: {{ $values.delivery }}
- name: TRACER_LOG_LEVEL
  value: {{ $values.logLevel }}
{{- end }}

{{- define "tracer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "tracer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* One pod: root, service, config (its values), env (more of it), data (the volume's source or
"" where a claim template brings it), ports (more of them). */}}
{{- define "tracer.pod" -}}
metadata:
  labels: {{- include "tracer.labels" . | nindent 4 }}
  annotations:
    checksum/tasks: {{ .root.Values.tasks | toJson | sha256sum }}
    {{- with .config.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tracer.serviceAccount" .root }}
  automountServiceAccountToken: false
  # A service stops reading, finishes its batch, commits and leaves its group.
  terminationGracePeriodSeconds: {{ .grace | default 30 }}
  securityContext: {{- include "tracer.podSecurity" . | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .config.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .config.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .config.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .service }}
      image: {{ include "tracer.image" . }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      securityContext: {{- include "tracer.containerSecurity" . | nindent 8 }}
      env:
        {{- range concat (include "tracer.env" . | fromYamlArray) (.env | default "" | fromYamlArray) }}
        {{- if not (hasKey ($.config.env | default dict) .name) }}
        - {{ toJson . }}
        {{- end }}
        {{- end }}
        {{- range $name, $value := .config.env }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- with .config.existingSecret }}
      envFrom: [{ secretRef: { name: {{ . }} } }]
      {{- end }}
      ports:
        - { name: health, containerPort: 8080 }
        {{- with .ports }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      # Slow starts (a first poll of the registry, warming up) are not failures.
      startupProbe:
        httpGet: { path: /healthz, port: health }
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /healthz, port: health }
        periodSeconds: 10
        timeoutSeconds: 3
      readinessProbe:
        httpGet: { path: /readyz, port: health }
        periodSeconds: 5
        timeoutSeconds: 3
      resources: {{- toYaml .config.resources | nindent 8 }}
      volumeMounts:
        - { name: tasks, mountPath: /config, readOnly: true }
        - { name: data, mountPath: /data }
        - { name: tmp, mountPath: /tmp }
        {{- if .root.Values.certificates.existingSecret }}
        - { name: certificates, mountPath: /certificates, readOnly: true }
        {{- end }}
        {{- if not .root.Values.signing.allowUnsigned }}
        - { name: keys, mountPath: /keys, readOnly: true }
        {{- end }}
        {{- if include "tracer.signs" . }}
        - { name: signing, mountPath: /signing, readOnly: true }
        {{- end }}
  volumes:
    {{- with .root.Values.certificates.existingSecret }}
    - name: certificates
      secret: { secretName: {{ . }}, defaultMode: 0440 }
    {{- end }}
    {{- if not .root.Values.signing.allowUnsigned }}
    - name: keys
      configMap: { name: {{ .root.Values.signing.keysConfigMap }} }
    {{- end }}
    {{- if include "tracer.signs" . }}
    - name: signing
      secret: { secretName: {{ .root.Values.signing.existingSecret }}, defaultMode: 0440 }
    {{- end }}
    - name: tasks
      configMap: { name: {{ include "tracer.tasksConfigMap" .root }} }
    - name: tmp
      emptyDir: {}
    {{- if not .claimed }}
    - name: data
      emptyDir: {}
    {{- end }}
{{- end }}
