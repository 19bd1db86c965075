<?php
// ws.php answers the events of bridgehead's webhook routes.
declare(strict_types=1);

// verify checks the signature as Standard Webhooks says: HMAC-SHA256 over "id.timestamp.body".
function verify(string $body, string $secret): bool
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $time = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (!ctype_digit($time) || abs(time() - (int) $time) > 300) {
        return false; // too old: somebody may have recorded it
    }
    $key = base64_decode(substr($secret, strlen('whsec_')));
    $want = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $signature) {
        if (hash_equals($want, $signature)) {
            return true;
        }
    }
    return false;
}

// answer ends the request.
function answer(int $status, array $body = []): never
{
    http_response_code($status);
    if ($body) {
        header('Content-Type: application/json');
        echo json_encode($body);
    }
    exit;
}

$body = file_get_contents('php://input');
$secret = getenv('WEBHOOK_SECRET');
if (!$secret || !verify($body, $secret)) {
    answer(401);
}
$room = $_GET['room'] ?? '';
$request = json_decode($body, true, flags: JSON_THROW_ON_ERROR);
$reply = [];
foreach ($request['events'] as $event) {
    switch ($event['type']) {
        case 'connect':
            if ($room === 'closed') {
                answer(403); // the browser sees a failed handshake
            }
            $reply['accept'] = ['state' => ['room' => $room]];
            $reply['actions'][] = ['send' => ['text' => "welcome to $room"]];
            break;
        case 'message':
            $said = $event['text'] ?? '(binary)';
            $reply['actions'][] = $said === 'bye'
                ? ['close' => ['code' => 1000, 'reason' => 'bye']]
                : ['send' => ['json' => ['room' => $room, 'echo' => $said]]];
            break;
        case 'close':
            error_log("{$request['connection']['id']} left $room: {$event['code']}");
            break;
    }
}
$reply ? answer(200, $reply) : answer(204);
